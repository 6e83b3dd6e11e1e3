"""How the shipped files were made; each module regenerates one: `python -m kdlib.recipes.NAME`."""
