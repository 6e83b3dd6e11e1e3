"""The exercises: a package for each unit, found by its name, such as `u02_soft_targets`."""
