"""Style sheet and script of the report, embedded into its one file."""
