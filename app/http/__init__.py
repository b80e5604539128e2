"""What api, compat and console share: sessions, the key check, problem documents, formats, pages, idempotency."""
