//! Snapshots of what `key-broker audit` prints, without what differs from run to run.

/// Settings under which two runs of a command print the same.
pub(crate) fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    for (found, shown) in [
        // As long as what they stand for: columns are to be seen.
        ("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"),
        (r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "YYYY-MM-DDTHH:MM:SSZ"),
        (r"20\d\d-\d\d-\d\d", "YYYY-MM-DD"),
        ("[0-9a-f]{512}", "SIGNATURE"),
        ("trail/dev-[0-9a-z]{12}", "trail/dev-IDENTIFIER00"),
        ("Z_[0-9A-Za-z]{16}.json", "Z_LETTERS.json"),
        (r"_20\d{6}T\d{4}(\d\d)?Z", "_MOMENT"),
        (r"/20\d\d/\d\d/\d\d/", "/YYYY/MM/DD/"),
        (r"unix:uid/\d+ *", "unix:uid/UID  "),
        (r"aws-sdk-rust/\S+( \S+/\S+)*", "USER-AGENT"),
    ] {
        settings.add_filter(found, shown);
    }
    settings
}
