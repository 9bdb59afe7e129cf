"""The schema of the database, revision by revision. docs/patterns/migrations.md says how one is written."""
