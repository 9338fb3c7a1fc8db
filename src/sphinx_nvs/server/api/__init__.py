"""The wire: request bodies, responses, problems, the OpenAPI document and its page."""
