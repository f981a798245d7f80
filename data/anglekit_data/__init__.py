"""Built-in corpora, made by this project's own generators."""
