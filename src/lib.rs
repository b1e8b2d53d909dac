//! state_cache
::pgrx::pg_module_magic!(name, version);
