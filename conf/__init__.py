"""Values of settings as YAML: a file for each mode, a folder for each group of choices. Schema: engine/config.py."""
