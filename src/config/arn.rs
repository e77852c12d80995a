//! ARNs of streams.

/// The parts of a stream's ARN. Two that are equal name one stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamArn {
    pub(super) partition: String,
    pub(super) region: String,
    pub(super) account: String,
    pub(super) name: String,
}

/// `arn:aws[…]:kinesis:region:account:stream/NAME[/…]`.
pub(super) fn stream_of_arn(arn: &str) -> Option<StreamArn> {
    let mut parts = arn.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let region_is = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = arn == "arn"
        && partition.starts_with("aws")
        && service == "kinesis"
        && !region.is_empty()
        && region.chars().all(region_is)
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit());
    let name = resource.strip_prefix("stream/")?.split('/').next()?;
    (good && !name.is_empty()).then(|| StreamArn {
        partition: partition.to_owned(),
        region: region.to_owned(),
        account: account.to_owned(),
        name: name.to_owned(),
    })
}
