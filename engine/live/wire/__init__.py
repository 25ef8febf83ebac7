"""Generated from protos/tandem/v1 by protos/generate.py; a test compares."""
