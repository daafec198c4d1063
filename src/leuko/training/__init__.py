"""Training and conversion: the only room that imports Keras and TensorFlow."""
