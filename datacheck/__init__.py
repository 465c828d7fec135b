"""The data check of a training run: a dataset against a declared schema and against the previous dataset."""
