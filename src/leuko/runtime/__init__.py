"""Prediction without Keras: bundles opened as classifiers."""
