"""Values of settings as YAML: one file for each mode, one folder for each group of choices. Schema: engine/config.py."""
