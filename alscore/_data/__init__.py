"""From files and tables to a canonical matrix with labels; and the container format of saved objects."""
