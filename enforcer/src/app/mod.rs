//! Configuration, and the processes that make up the service.
