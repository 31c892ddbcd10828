//! `status`, `banned`, `ban`, `unban`, `off`, `reload`: what the kernel's sets say.
use std::io::Write;

use super::{BanArgs, Done, Failure, ListArgs, StatusArgs, UnbanArgs, WhereArgs};

macro_rules! stub {
    ($($name:ident($args:ty)),*) => {$(
        /// stub
        pub fn $name(_args: &$args, _out: &mut dyn Write) -> Done {
            Err(Failure::Usage("not written yet".into()))
        }
    )*};
}
stub!(
    status(StatusArgs),
    banned(ListArgs),
    ban(BanArgs),
    unban(UnbanArgs),
    off(WhereArgs),
    reload(WhereArgs)
);
