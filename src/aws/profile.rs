//! Reads the selected AWS profile from the config file and the credentials file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aws_config::profile::{self, ProfileSet};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_runtime::env_config::property::PropertiesKey;
use aws_types::os_shim_internal::{Env, Fs};

use crate::config::sdk::jvm::Properties;
use crate::config::sdk::{self, KEYS, Outside, Profile, ProfileFiles};

/// Reads the profile. A file that does not exist counts as empty, as in the SDK.
pub async fn load(variables: &BTreeMap<String, String>, properties: &Properties) -> Profile {
    let nothing = Profile::default();
    let outside = Outside { variables, properties, profile: &nothing };
    let text = |name| outside.find(name).map(|found| found.value.to_owned());
    let name = text(sdk::PROFILE).unwrap_or_else(|| "default".to_owned());
    let home = variables.get("HOME").map_or("~", String::as_str);
    let place = |name, usual: &str| {
        let place = text(name).unwrap_or_else(|| format!("~/.aws/{usual}"));
        place.strip_prefix("~/").map_or_else(|| place.clone(), |rest| format!("{home}/{rest}"))
    };
    let files = vec![place(sdk::CONFIG_FILE, "config"), place(sdk::CREDENTIALS_FILE, "credentials")];
    let missing =
        [sdk::CONFIG_FILE, sdk::CREDENTIALS_FILE].into_iter().zip(&files).filter_map(|(name, file)| {
            let source = outside.find(name)?.source;
            (!std::path::Path::new(file).is_file()).then_some(source)
        });
    let missing = missing.collect();
    let chosen = chosen(&ProfileFiles::of(properties));
    let loaded = profile::load(&Fs::real(), &Env::real(), &chosen, Some(Cow::Owned(name.clone()))).await;
    match loaded {
        Ok(sections) => {
            let values = KEYS.iter().filter_map(|key| Some(((*key).to_owned(), value(&sections, key)?)));
            let exists = sections.get_profile(&name).is_some();
            Profile { values: values.collect(), exists, name, files, missing, failure: None }
        }
        Err(error) => {
            let failure = Some(super::error::causes(&error));
            Profile { name, files, missing, failure, ..Profile::default() }
        }
    }
}

/// The SDK's usual files, except for those that a system property names.
pub(super) fn chosen(files: &ProfileFiles) -> EnvConfigFiles {
    let mut builder = EnvConfigFiles::builder();
    builder = match &files.config {
        Some(file) => builder.with_file(EnvConfigFileKind::Config, file),
        None => builder.include_default_config_file(true),
    };
    builder = match &files.credentials {
        Some(file) => builder.with_file(EnvConfigFileKind::Credentials, file),
        None => builder.include_default_credentials_file(true),
    };
    builder.build()
}

/// The value of a key; a key with a dot is read from the `services` section that the profile names.
fn value(sections: &ProfileSet, key: &str) -> Option<String> {
    let Some((service, key)) = key.split_once('.') else { return sections.get(key).map(str::to_owned) };
    let name = PropertiesKey::builder().section_key("services").section_name(sections.get("services")?);
    let name = name.property_name(service).sub_property_name(key).build().ok()?;
    sections.other_sections().get(&name).cloned()
}
