"""The networks: a file for each family, and layers.py for what families share. models.py has their table."""
