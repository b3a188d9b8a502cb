//! The bodies of object storage, module `storage` (osap-wire 10.7): the device asks where to put or to get objects,
//! and reports how it went.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::member::{append_checked, digest, list, members, plain, plain_if, text, text_or_empty};
use super::{BodyError, object};
use crate::json;
use crate::wire::hex_lower;

/// The module of the topics.
pub const MODULE: &str = "storage";
/// The method that asks where to put objects, message types `query` and `query_reply`.
pub const UPLOAD: &str = "upload/url";
/// The method of [`Results`], message type `report`.
pub const RESULT: &str = "upload/result";
/// The method that asks where to get objects, message types `query` and `query_reply`.
pub const DOWNLOAD: &str = "download/url";

/// The most objects of one body.
pub const MAX_OBJECTS: usize = 16;
/// The longest name of an object, in bytes.
pub const MAX_NAME: usize = 256;
/// The longest URL, in bytes.
pub const MAX_URL: usize = 2048;
/// The most headers a request of the device has to carry.
pub const MAX_HEADERS: usize = 16;
const MAX_HEADER: usize = 1024;
const MAX_WORD: usize = 128;

/// What a device wants to put or to get: `query` under [`UPLOAD`] or [`DOWNLOAD`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The objects, at most [`MAX_OBJECTS`].
    pub objects: Vec<Object>,
}

/// An object as the device describes it. To get one, the name is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its size, in bytes.
    pub size: Option<u64>,
    /// Its media type.
    pub content_type: Option<String>,
    /// Its SHA-256 digest.
    pub sha256: Option<[u8; 32]>,
}

impl Query {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object within the limits.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [objects] = members(object(body)?, ["objects"])?;
        let objects = list(objects, "objects", MAX_OBJECTS, |entry| {
            let [name, size, content_type, sha256] = members(entry, ["name", "size", "contentType", "sha256"])?;
            Ok(Object {
                name: object_name(name)?,
                size: plain_if(size, "size")?,
                content_type: content_type
                    .map(|kind| text(Some(kind), "contentType", MAX_WORD).map(String::from))
                    .transpose()?,
                sha256: sha256.map(|sha256| digest(Some(sha256), "sha256")).transpose()?,
            })
        })?;
        Ok(Self { objects })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when a text or the whole is beyond the limits; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct ObjectShape<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            size: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            content_type: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            sha256: Option<String>,
        }
        #[derive(Serialize)]
        struct Shape<'a> {
            objects: Vec<ObjectShape<'a>>,
        }
        let objects = self.objects.iter().map(|object| ObjectShape {
            name: &object.name,
            size: object.size,
            content_type: object.content_type.as_deref(),
            sha256: object.sha256.map(|sha256| hex_lower::<64>(&sha256).map(char::from).iter().collect()),
        });
        let shape = Shape { objects: objects.collect() };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}

/// What a device does with a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// It puts the object there.
    Put,
    /// It gets the object from there.
    Get,
}

impl Method {
    /// The method of HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Get => "GET",
        }
    }
}

/// Where to put or to get the objects: `query_reply` under [`UPLOAD`] or [`DOWNLOAD`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// 0, or why there is no place for them.
    pub code: i64,
    /// One for each object, at most [`MAX_OBJECTS`].
    pub objects: Vec<Grant>,
}

/// Where one object goes or comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its name, as asked for.
    pub name: String,
    /// What is done there.
    pub method: Method,
    /// The place, signed for this purpose, at most [`MAX_URL`] bytes.
    pub url: String,
    /// Names and values of headers that the request carries, at most [`MAX_HEADERS`].
    pub headers: Vec<(String, String)>,
    /// For how many seconds the place is good.
    pub expire_s: u32,
}

/// Whoever has the URL or the headers has the object, so neither is shown.
impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Grant");
        shown.field("name", &self.name).field("method", &self.method).field("expire_s", &self.expire_s);
        shown.finish_non_exhaustive()
    }
}

impl Grants {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object within the limits.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [code, objects] = members(object(body)?, ["code", "objects"])?;
        let code = plain(code, "code")?;
        let objects = match objects {
            // A refusal need not name what it refuses.
            None if code != 0 => Vec::new(),
            objects => list(objects, "objects", MAX_OBJECTS, Grant::parse)?,
        };
        Ok(Self { code, objects })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when a text or the whole is beyond the limits; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct GrantShape<'a> {
            name: &'a str,
            method: &'static str,
            url: &'a str,
            headers: Headers<'a>,
            expire: u32,
        }
        #[derive(Serialize)]
        struct Shape<'a> {
            code: i64,
            objects: Vec<GrantShape<'a>>,
        }
        let objects = self.objects.iter().map(|grant| GrantShape {
            name: &grant.name,
            method: grant.method.as_str(),
            url: &grant.url,
            headers: Headers(&grant.headers),
            expire: grant.expire_s,
        });
        let shape = Shape { code: self.code, objects: objects.collect() };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}

impl Grant {
    fn parse(entry: &str) -> Result<Self, BodyError> {
        let [name, method, url, headers, expire] = members(entry, ["name", "method", "url", "headers", "expire"])?;
        let url = text(url, "url", MAX_URL)?.into_owned();
        if url.is_empty() || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BodyError::Unacceptable("url"));
        }
        Ok(Self {
            name: object_name(name)?,
            method: match &*text(method, "method", MAX_WORD)? {
                "PUT" => Method::Put,
                "GET" => Method::Get,
                _ => return Err(BodyError::Unacceptable("method")),
            },
            url,
            headers: headers.map_or(Ok(Vec::new()), |headers| read_headers(headers.get()))?,
            expire_s: plain(expire, "expire")?,
        })
    }
}

/// A line break in a header would be a second header.
fn read_headers(object: &str) -> Result<Vec<(String, String)>, BodyError> {
    let (mut headers, mut wrong) = (Vec::new(), None);
    json::for_each_member(object.as_bytes(), |name, value| {
        let printable = |text: &str| text.len() <= MAX_HEADER && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        match json::string(value) {
            _ if headers.len() == MAX_HEADERS => wrong = Some(BodyError::TooMany("headers")),
            Some(value) if !name.is_empty() && printable(name) && printable(&value) => {
                headers.push((name.to_owned(), value.into_owned()));
            }
            _ => wrong = Some(BodyError::Unacceptable("headers")),
        }
    })
    .map_err(|_| BodyError::Unacceptable("headers"))?;
    wrong.map_or(Ok(headers), Err)
}

struct Headers<'a>(&'a [(String, String)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// How the uploads went: `report` under [`RESULT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// One for each object, at most [`MAX_OBJECTS`].
    pub objects: Vec<Uploaded>,
}

/// How one upload went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The name of the object.
    pub name: String,
    /// 0, or the device's own code.
    pub code: i64,
    /// What the storage answered with; may be empty.
    pub etag: String,
}

impl Results {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object within the limits.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [objects] = members(object(body)?, ["objects"])?;
        let objects = list(objects, "objects", MAX_OBJECTS, |entry| {
            let [name, code, etag] = members(entry, ["name", "code", "etag"])?;
            Ok(Uploaded {
                name: object_name(name)?,
                code: plain(code, "code")?,
                etag: text_or_empty(etag, "etag", MAX_WORD)?,
            })
        })?;
        Ok(Self { objects })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when a text or the whole is beyond the limits; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct UploadedShape<'a> {
            name: &'a str,
            code: i64,
            etag: &'a str,
        }
        #[derive(Serialize)]
        struct Shape<'a> {
            objects: Vec<UploadedShape<'a>>,
        }
        fn shape(Uploaded { name, code, etag }: &Uploaded) -> UploadedShape<'_> {
            UploadedShape { name, code: *code, etag }
        }
        let shape = Shape { objects: self.objects.iter().map(shape).collect() };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}

fn object_name(value: Option<&serde_json::value::RawValue>) -> Result<String, BodyError> {
    let name = text(value, "name", MAX_NAME)?;
    let fits = !name.is_empty() && !name.contains(char::is_control);
    if fits { Ok(name.into_owned()) } else { Err(BodyError::Unacceptable("name")) }
}
