"""A bundle is fitted to a microscope, from labelled cells of it."""
