"""params.yaml as frozen models, and the methods by name."""
