"""Whole experiments: a model on a labelled folder, several recipes on a data set, the demo."""
