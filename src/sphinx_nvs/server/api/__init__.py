"""The wire format: request bodies, responses, problem documents, the OpenAPI document and its page."""
