//! Real programs on a real mount: version control, a database, archives, compilers, packages, fio.

mod archives;
mod build;
mod database;
mod fio;
mod git;
