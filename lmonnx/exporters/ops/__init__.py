"""The masked operators: plain functions that build nodes of the default domain."""
