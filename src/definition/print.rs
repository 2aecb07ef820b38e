//! The route table of a snapshot, for people: `causeway check --print`.

use std::fmt::Write as _;

use super::{Api, GroupAction, Integration, Ordering, Route, Snapshot};

const HEADER: [&str; 6] = ["API", "STAGE", "ROUTE", "INTEGRATION", "TWO-WAY", "ORDER"];

/// A table of API, stage, route key, integration, two-way and order; a line each, columns aligned.
///
/// URLs, group names and templates are left out: they may hold what `${env:…}` and `${file:…}` yielded.
pub fn print_routes(snapshot: &Snapshot) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for api in &snapshot.apis {
        for stage in api.stages.keys() {
            rows.extend(routes(api).map(|route| row(api, stage.as_str(), route)));
        }
    }
    let widths: [usize; 6] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    });
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _infallible = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

fn routes(api: &Api) -> impl Iterator<Item = &Route> {
    let reserved = [&api.connect, &api.disconnect].into_iter().flatten();
    reserved.chain(api.routes.iter().map(|(_, route)| route)).map(|route| &**route)
}

fn row(api: &Api, stage: &str, route: &Route) -> [String; 6] {
    let ordering = match route.ordering {
        Ordering::Parallel => "parallel",
        Ordering::Serial => "serial",
    };
    [
        api.id.to_string(),
        stage.to_owned(),
        // A key may hold anything; a line break in it must not break the table.
        route.key.as_str().escape_debug().to_string(),
        integration(route.integration.as_ref()),
        if route.two_way { "yes" } else { "no" }.to_owned(),
        ordering.to_owned(),
    ]
}

fn integration(integration: Option<&Integration>) -> String {
    match integration {
        None => "-".to_owned(),
        Some(Integration::Mock(_)) => "MOCK".to_owned(),
        Some(Integration::Http(http)) => {
            format!("{} {}", if http.proxy { "HTTP_PROXY" } else { "HTTP" }, http.method)
        }
        Some(Integration::Lambda(lambda)) => format!("{} lambda", if lambda.proxy { "AWS_PROXY" } else { "AWS" }),
        Some(Integration::Group(group)) => match group.action {
            GroupAction::Join => "GROUP join",
            GroupAction::Leave => "GROUP leave",
            GroupAction::Send => "GROUP send",
        }
        .to_owned(),
    }
}
