//! What a release consists of: `META.json` is valid by the PGXN Meta Spec 1.0, and says what the rest says.

use serde_json::{Map, Value};
use state_cache_docs_tests::{read, root};

/// What the specification knows at the top, and whether it must be there.
const FIELDS: [(&str, bool); 14] = [
    ("abstract", true),
    ("license", true),
    ("maintainer", true),
    ("meta-spec", true),
    ("name", true),
    ("provides", true),
    ("version", true),
    ("description", false),
    ("generated_by", false),
    ("no_index", false),
    ("prereqs", false),
    ("release_status", false),
    ("resources", false),
    ("tags", false),
];

fn meta() -> Map<String, Value> {
    let meta: Value = serde_json::from_str(&read("META.json")).unwrap();
    meta.as_object().unwrap().clone()
}

/// A String of the specification: not empty.
fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    let text = of[field].as_str();
    text.filter(|it| !it.is_empty())
        .unwrap_or_else(|| panic!("{field}: {of}"))
}

/// A Term of the specification.
fn is_term(name: &str) -> bool {
    let is_allowed = |c: char| c != '/' && c != '\\' && !c.is_whitespace() && !c.is_control();
    name.chars().count() >= 2 && name.chars().all(is_allowed)
}

/// The numbers of a version without labels; the specification wants three, without leading zeros.
fn numbers(version: &str) -> Option<Vec<u32>> {
    let parts: Vec<&str> = version.split('.').collect();
    let is_number = |part: &&str| part.parse::<u32>().is_ok_and(|it| it.to_string() == **part);
    (parts.len() == 3 && parts.iter().all(is_number))
        .then(|| parts.iter().flat_map(|part| part.parse()).collect())
}

/// The version in the control file.
fn version() -> String {
    let control = read("state_cache.control");
    let line = control
        .lines()
        .find_map(|line| line.strip_prefix("default_version = '"));
    line.and_then(|it| it.strip_suffix('\''))
        .unwrap()
        .to_owned()
}

#[test]
fn meta_has_the_fields_of_the_specification_and_no_others() {
    let meta = meta();
    for (field, is_required) in FIELDS {
        assert!(!is_required || meta.contains_key(field), "{field}");
    }
    for field in meta.keys() {
        let is_custom = field.starts_with("x_") || field.starts_with("X_");
        assert!(
            is_custom || FIELDS.iter().any(|it| it.0 == field),
            "{field}"
        );
    }
    let meta = Value::Object(meta);
    assert!(is_term(text(&meta, "name")));
    text(&meta, "abstract");
    text(&meta, "description");
    text(&meta, "generated_by");
    let maintainer = text(&meta, "maintainer");
    assert!(
        maintainer.contains(" <") && maintainer.ends_with('>'),
        "{maintainer}"
    );
    assert_eq!(text(&meta["meta-spec"], "version"), "1.0.0");
    let status = text(&meta, "release_status");
    assert!(
        ["stable", "testing", "unstable"].contains(&status),
        "{status}"
    );
    let tags = meta["tags"].as_array().unwrap();
    assert!(!tags.is_empty());
    for tag in tags {
        let tag = tag.as_str().unwrap();
        assert!(
            (2..256).contains(&tag.len()) && !tag.contains(['/', '\\']),
            "{tag}"
        );
    }
}

#[test]
fn meta_names_this_release_and_files_that_are_there() {
    let meta = Value::Object(meta());
    let version = version();
    assert!(
        numbers(&version).is_some(),
        "{version} is no semantic version"
    );
    assert_eq!(text(&meta, "version"), version);
    assert!(read("Cargo.toml").contains(&format!("version = \"{version}\"")));
    let provides = meta["provides"].as_object().unwrap();
    assert_eq!(provides.keys().collect::<Vec<_>>(), ["state_cache"]);
    let extension = &provides["state_cache"];
    assert_eq!(text(extension, "version"), version);
    assert_eq!(
        text(extension, "file"),
        format!("sql/state_cache--{version}.sql")
    );
    for field in extension.as_object().unwrap().keys() {
        assert!(
            ["abstract", "docfile", "file", "version"].contains(&field.as_str()),
            "{field}"
        );
    }
    for field in ["file", "docfile"] {
        let path = text(extension, field);
        assert!(root().join(path).is_file(), "{path}");
    }
    for directory in meta["no_index"]["directory"].as_array().unwrap() {
        assert!(
            root().join(directory.as_str().unwrap()).is_dir(),
            "{directory}"
        );
    }
}

#[test]
fn meta_has_the_licence_of_the_project() {
    // The identifier that the specification has for it.
    assert_eq!(meta()["license"], "postgresql");
    assert!(read("LICENSE").starts_with("PostgreSQL License\n"));
    assert!(read("Cargo.toml").contains("license = \"PostgreSQL\""));
    assert!(read("packaging/debian/copyright").contains("\nLicense: PostgreSQL\n"));
}

#[test]
fn meta_asks_for_the_servers_that_are_supported() {
    let meta = Value::Object(meta());
    let requires = &meta["prereqs"]["runtime"]["requires"];
    let range = text(requires, "PostgreSQL");
    let (from, below) = range.split_once(", ").unwrap();
    let from = numbers(from.strip_prefix(">= ").unwrap()).unwrap();
    let below = numbers(below.strip_prefix("< ").unwrap()).unwrap();
    let scripts = read("scripts/lib.sh");
    let supported = scripts
        .lines()
        .find_map(|line| line.strip_prefix("SUPPORTED_VERSIONS=\""));
    let supported: Vec<u32> = supported
        .unwrap()
        .trim_end_matches('"')
        .split(' ')
        .map(|it| it.parse().unwrap())
        .collect();
    assert_eq!(from, [*supported.iter().min().unwrap(), 0, 0]);
    assert_eq!(below, [supported.iter().max().unwrap() + 1, 0, 0]);
}
