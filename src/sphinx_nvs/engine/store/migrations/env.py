"""Run by Alembic: upgrades over the connection that `store.upgrade` hands over, within its transaction."""

from alembic import context

from sphinx_nvs.engine.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
