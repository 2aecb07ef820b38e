//! `causeway check`.

use super::{Exit, complain, print};
use crate::config::{self, CheckArgs, Settings};
use crate::definition;

/// Checks the configuration and all definitions, and prints every problem.
pub fn check(args: CheckArgs) -> Exit {
    if args.schema {
        print(&format!("{:#}", definition::json_schema()));
        return Exit::Clean;
    }
    let settings = match Settings::resolve(*args.options, args.config.as_deref(), &config::environment) {
        Ok(settings) => settings,
        Err(problems) => {
            complain(&problems.to_string());
            return Exit::Bad;
        }
    };
    match definition::load(&settings.routes, &config::environment) {
        Ok(snapshot) => {
            if args.print {
                print(definition::print_routes(&snapshot).trim_end());
            } else {
                let routes: usize = snapshot.apis.iter().map(|api| api.routes.iter().count()).sum();
                let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
                let (apis, routes) = (count(snapshot.apis.len(), "API"), count(routes, "message route"));
                print(&format!("ok: {apis}, {routes}"));
            }
            Exit::Clean
        }
        Err(problems) => {
            complain(&problems.to_string());
            Exit::Bad
        }
    }
}
