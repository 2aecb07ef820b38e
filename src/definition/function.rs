//! Which Lambda function an `integrationUri` names (specification 4.1, the REST one 2.7).

use std::borrow::Cow;

/// A function, as the Invoke API takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Name, `{account}:function:{name}` or whole ARN, without the qualifier.
    pub name: String,
    /// Version, alias or `$LATEST`.
    pub qualifier: Option<String>,
    /// The region of its ARN; a plain name has the process's.
    pub region: Option<String>,
}

/// Why a text names no function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// An ARN of API Gateway for another service than Lambda.
    #[error("is an AWS service other than Lambda, which is known but not supported yet, expected a Lambda function")]
    OtherService,
    /// Not the path of the Invoke API, such as the one for streamed answers.
    #[error("is no path of the Invoke API, expected `…:lambda:path/2015-03-31/functions/{{function}}/invocations`")]
    Path,
    /// Neither name nor ARN.
    #[error("names no Lambda function, expected a function name, its ARN, or its invocation ARN")]
    Name,
}

/// An `integrationUri` of `AWS_PROXY` or `AWS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FunctionUri {
    /// Known when loaded.
    Fixed(Function),
    /// With `${stageVariables.name}` in it: read at each call.
    Varying(String),
}

impl FunctionUri {
    /// The function, with the variables of the stage; one that is not set counts as empty (specification 4.1.2).
    ///
    /// # Errors
    /// [`FunctionError`] when the variables make no function of it.
    pub fn resolve<'v>(
        &self,
        stage_variable: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<Cow<'_, Function>, FunctionError> {
        match self {
            Self::Fixed(function) => Ok(Cow::Borrowed(function)),
            Self::Varying(text) => {
                let mut filled = String::with_capacity(text.len() + 32);
                let mut rest = text.as_str();
                while let Some((before, place)) = rest.split_once("${stageVariables.") {
                    let Some((name, after)) = place.split_once('}') else { return Err(FunctionError::Name) };
                    filled.push_str(before);
                    filled.push_str(stage_variable(name).unwrap_or_default());
                    rest = after;
                }
                filled.push_str(rest);
                Function::parse(&filled).map(Cow::Owned)
            }
        }
    }
}

/// Longest name, and longest qualifier.
const MAX_NAME: usize = 128;

impl Function {
    /// Reads one of `arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{function}/invocations`, the function's
    /// own ARN, `{account}:function:{name}` and a plain name, the last three with a qualifier or without.
    ///
    /// # Errors
    /// [`FunctionError`], which says what was expected.
    pub fn parse(text: &str) -> Result<Self, FunctionError> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().unwrap_or_default();
        match (next(), next(), next(), next(), next(), next()) {
            ("arn", partition, "apigateway", region, service, path) if is_partition(partition) => {
                if service != "lambda" {
                    return Err(FunctionError::OtherService);
                }
                let function = path.strip_prefix("path/2015-03-31/functions/");
                let function =
                    function.and_then(|rest| rest.strip_suffix("/invocations")).ok_or(FunctionError::Path)?;
                let inner = Self::of_name(function)?;
                if !is_region(region) {
                    return Err(FunctionError::Name);
                }
                Ok(Self { region: inner.region.or_else(|| Some(region.to_owned())), ..inner })
            }
            _ => Self::of_name(text),
        }
    }

    fn of_name(text: &str) -> Result<Self, FunctionError> {
        let parts: Vec<&str> = text.splitn(9, ':').collect();
        let (name, qualifier, region) = match *parts.as_slice() {
            ["arn", partition, "lambda", region, account, "function", name, ref rest @ ..]
                if is_partition(partition) && is_region(region) && is_account(account) =>
            {
                (name, rest, Some(region))
            }
            [account, "function", name, ref rest @ ..] if is_account(account) => (name, rest, None),
            [name, ref rest @ ..] => (name, rest, None),
            [] => return Err(FunctionError::Name),
        };
        let qualifier = match *qualifier {
            [] => None,
            [qualifier] if qualifier == "$LATEST" || is_name(qualifier) => Some(qualifier),
            _ => return Err(FunctionError::Name),
        };
        if !is_name(name) {
            return Err(FunctionError::Name);
        }
        let without = qualifier.map_or(text, |qualifier| {
            text.strip_suffix(qualifier).and_then(|text| text.strip_suffix(':')).unwrap_or(text)
        });
        Ok(Self {
            name: without.to_owned(),
            qualifier: qualifier.map(str::to_owned),
            region: region.map(str::to_owned),
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters, digits and `-`, so that it can stand in a host name.
fn is_region(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(fits)
}

fn is_partition(text: &str) -> bool {
    text == "aws" || text.strip_prefix("aws-").is_some_and(is_region)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, qualifier: Option<&str>, region: Option<&str>) -> Function {
        Function { name: name.into(), qualifier: qualifier.map(Into::into), region: region.map(Into::into) }
    }

    const ARN: &str = "arn:aws:lambda:eu-west-1:123456789012:function:chat";

    // checklist: 143
    #[test]
    fn every_way_to_name_a_function_is_read() {
        let path = |function: &str| format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}");
        for (text, expected) in [
            ("chat".to_owned(), function("chat", None, None)),
            ("chat:live".to_owned(), function("chat", Some("live"), None)),
            ("chat:$LATEST".to_owned(), function("chat", Some("$LATEST"), None)),
            ("123456789012:function:chat".to_owned(), function("123456789012:function:chat", None, None)),
            ("123456789012:function:chat:7".to_owned(), function("123456789012:function:chat", Some("7"), None)),
            (ARN.to_owned(), function(ARN, None, Some("eu-west-1"))),
            (format!("{ARN}:live"), function(ARN, Some("live"), Some("eu-west-1"))),
            (format!("{}/invocations", path(ARN)), function(ARN, None, Some("eu-west-1"))),
            (format!("{}:7/invocations", path(ARN)), function(ARN, Some("7"), Some("eu-west-1"))),
            (format!("{}/invocations", path("chat")), function("chat", None, Some("us-east-1"))),
        ] {
            assert_eq!(Function::parse(&text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_names_no_function_says_why() {
        for text in
            ["", ":", "chat:", "a/b", "a b", "chat:live:more", "http://host/", "arn:aws:lambda:x", "chat:a/../b"]
        {
            assert_eq!(Function::parse(text), Err(FunctionError::Name), "{text}");
        }
        for text in
            ["arn:aws:apigateway:us-east-1:dynamodb:action/PutItem", "arn:aws:apigateway:us-east-1:sqs:path/1/q"]
        {
            assert_eq!(Function::parse(text), Err(FunctionError::OtherService), "{text}");
        }
        for text in [
            "arn:aws:apigateway:r:lambda:path/2021-11-15/functions/f/response-streaming-invocations",
            "arn:aws:apigateway:r:lambda:action/Invoke",
        ] {
            assert_eq!(Function::parse(text), Err(FunctionError::Path), "{text}");
        }
        let host = "arn:aws:lambda:evil.example/:123456789012:function:chat";
        assert_eq!(Function::parse(host), Err(FunctionError::Name), "a region stands in a host name");
    }

    #[test]
    fn stage_variables_fill_a_name_and_one_that_is_not_set_is_empty() {
        let uri = FunctionUri::Varying("${stageVariables.fn}:${stageVariables.alias}".to_owned());
        let both = |name: &str| match name {
            "fn" => Some(ARN),
            "alias" => Some("live"),
            _ => None,
        };
        assert_eq!(uri.resolve(both).unwrap().into_owned(), function(ARN, Some("live"), Some("eu-west-1")));
        assert_eq!(uri.resolve(|name| both(name).filter(|_| name == "fn")), Err(FunctionError::Name));
    }
}
