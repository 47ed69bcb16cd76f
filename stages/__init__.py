"""The command line: one thin click command per DVC stage, and the commands around them."""
