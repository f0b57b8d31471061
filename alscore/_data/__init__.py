"""From files and tables to a canonical matrix with labels, and the container that saved objects share."""
