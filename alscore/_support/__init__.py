"""What every room needs: types, checks, files, threads. It imports nothing of alscore but itself."""
