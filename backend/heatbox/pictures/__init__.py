"""Pictures: where a task says that one is, how it is fetched, and how a file becomes upright pixels."""
