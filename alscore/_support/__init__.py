"""What several rooms need: types, checks, files, threads, old names, the options of a model on the command line."""
