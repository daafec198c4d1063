"""Even out the classes of a training set, on disk or as an order of indices.

The augmentation is the published experiment's: a rotation, a zoom and a mirror image, drawn anew
for every copy. Every draw follows from the seed, the class, the copy's number and the original's
path alone, so neither the number of workers nor the order of the work can change a byte.
"""
