"""Prediction of very many images: partitions, the engines that answer them, and resuming."""
