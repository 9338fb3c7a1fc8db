"""Style and script of the report, written into its one file."""
