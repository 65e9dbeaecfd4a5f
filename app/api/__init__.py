"""The HTTP contract: routes, schemas, uploads, problem documents, API keys."""
