//! Programs that run an application named by an argument: `gunicorn shop.wsgi:app`.

use crate::discovery::environment::Environment;

/// Last parts of a module path that say nothing.
const GENERIC_PARTS: &[&str] = &[
    "app",
    "application",
    "asgi",
    "celery",
    "main",
    "wsgi",
    "__init__",
];

/// The name of the application, by the launcher's file or module name.
pub(super) fn name(
    launcher: &str,
    arguments: &[String],
    environment: &Environment,
) -> Option<String> {
    match launcher {
        "gunicorn" | "uvicorn" | "hypercorn" | "daphne" | "granian" | "waitress-serve"
        | "waitress" => target(arguments).map(application_name),
        "uwsgi" => option_value(
            arguments,
            &["-w", "--module", "--wsgi", "--wsgi-file", "--file"],
        )
        .map(application_name),
        "celery" => option_value(arguments, &["-A", "--app"]).map(application_name),
        "flask" => option_value(arguments, &["--app", "-A"])
            .or(environment.flask_app.as_deref())
            .map(application_name),
        "streamlit" | "fastapi" => arguments
            .iter()
            .find_map(|argument| argument.strip_suffix(".py"))
            .map(application_name),
        _ => None,
    }
}

/// `module:attribute` wherever it stands; options of these programs never look
/// like that. Else the last argument, when it is a module path.
fn target(arguments: &[String]) -> Option<&str> {
    let named = arguments.iter().map(String::as_str).find(|argument| {
        argument
            .split_once(':')
            .is_some_and(|(module, attribute)| is_module(module) && is_attribute(attribute))
    });
    let last = || match arguments {
        // More likely the option's value.
        [.., before, _] if before.starts_with('-') => None,
        [.., last] => Some(last.as_str()).filter(|last| is_module(last)),
        [] => None,
    };
    named.or_else(last)
}

fn is_module(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/');
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(is_word)
}

fn is_attribute(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

fn option_value<'a>(arguments: &'a [String], options: &[&str]) -> Option<&'a str> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if options.contains(&argument.as_str()) {
            return rest.next().map(String::as_str);
        }
        if let Some((option, value)) = argument.split_once('=')
            && options.contains(&option)
        {
            return Some(value);
        }
    }
    None
}

/// `shop.wsgi:app` is `shop`, `main:app` is `main`, `services/cart.py` is `cart`.
pub(super) fn application_name(target: &str) -> String {
    let module = target.split(':').next().unwrap_or(target);
    let module = module.strip_suffix(".py").unwrap_or(module);
    let module = module.rsplit('/').next().unwrap_or(module);
    let mut name = module;
    while let Some((front, last)) = name.rsplit_once('.')
        && GENERIC_PARTS.contains(&last)
        && !front.is_empty()
    {
        name = front;
    }
    name.to_owned()
}
