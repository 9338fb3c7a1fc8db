"""The life of a job: its states, its transitions, the units of work it is split into."""
