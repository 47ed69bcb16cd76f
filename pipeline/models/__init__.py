"""The networks: what teacher and students share, the teacher, the students."""
