//! HTTPS and SVCB records (RFC 9460): gives them without address hints, which the client is to ask for, without the keys of
//! encrypted client hello unless wanted, and without what nobody here knows.

use domain::{
    base::{Name, ParsedName, ToName, iana::SvcParamKey},
    rdata::svcb::{SvcParams, SvcbRdata, UnknownSvcParam},
};

use super::answer::Unreadable;

/// A record as parsed, and as owned.
type Parsed<'a, Kind> = SvcbRdata<Kind, &'a [u8], ParsedName<&'a [u8]>>;
type Owned<Kind> = SvcbRdata<Kind, Vec<u8>, Name<Vec<u8>>>;

type Params = Vec<(SvcParamKey, Vec<u8>)>;

/// The record without what is not passed on; `None` if it demands what is not known.
pub(super) fn strip<Kind>(
    binding: &Parsed<'_, Kind>,
    keep_ech: bool,
) -> Result<Option<Owned<Kind>>, Unreadable> {
    let mut params = Params::new();
    if binding.is_service() {
        for param in binding.params().iter::<UnknownSvcParam<_>>() {
            let param = param?;
            params.push((param.key(), param.value().to_vec()));
        }
    }
    let Some(params) = kept(params, keep_ech) else { return Ok(None) };
    let mut wire = Vec::new();
    for (key, value) in params {
        UnknownSvcParam::new(key, value)?.compose_param(&mut wire)?;
    }
    let params = SvcParams::from_octets(wire).map_err(|_| Unreadable)?;
    Ok(Some(SvcbRdata::new(binding.priority(), binding.target().to_vec(), params)?))
}

/// The parameters that are passed on, in order; `None` if one that is demanded is neither known nor there.
fn kept(mut params: Params, keep_ech: bool) -> Option<Params> {
    let there: Vec<SvcParamKey> = params.iter().map(|(key, _)| *key).collect();
    let passed = |key: SvcParamKey| match key {
        SvcParamKey::ALPN | SvcParamKey::NO_DEFAULT_ALPN | SvcParamKey::PORT => true,
        SvcParamKey::ECH => keep_ech,
        _ => false,
    };
    let known = |key: SvcParamKey| {
        passed(key) || [SvcParamKey::IPV4HINT, SvcParamKey::IPV6HINT, SvcParamKey::ECH].contains(&key)
    };
    for (key, value) in &mut params {
        if *key == SvcParamKey::MANDATORY {
            let (demanded, []) = value.as_chunks::<2>() else { return None };
            let demanded: Vec<SvcParamKey> =
                demanded.iter().map(|key| u16::from_be_bytes(*key).into()).collect();
            if !demanded.iter().all(|key| known(*key) && there.contains(key)) {
                return None;
            }
            let left = demanded.into_iter().filter(|key| passed(*key));
            *value = left.flat_map(|key| key.to_int().to_be_bytes()).collect();
        }
    }
    params.retain(|(key, value)| passed(*key) || (*key == SvcParamKey::MANDATORY && !value.is_empty()));
    Some(params)
}
