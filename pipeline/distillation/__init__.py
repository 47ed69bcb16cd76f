"""The weighted terms of one run, and what they keep beside the student."""
