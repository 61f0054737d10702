//! Multipart uploads, read as they come.
//!
//! **Invariant:** at most [`MAX_HEAD`] bytes of a part's head and one chunk of its data are held, whatever the client
//! sends; what stands before the first boundary is dropped as it arrives.

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use percent_encoding::percent_decode;

/// The longest head of a part.
const MAX_HEAD: usize = 16 * 1024;
/// The longest boundary RFC 2046 allows.
const MAX_BOUNDARY: usize = 70;

/// An upload cannot be understood, or broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// The content type is not one of multipart uploads, or names no boundary.
    #[error("the content type must be multipart/form-data with a boundary")]
    NotMultipart,
    /// The client sent something else than multipart.
    #[error("malformed multipart body: {0}")]
    Malformed(&'static str),
    /// The body ended before its last boundary.
    #[error("the upload broke off: {0}")]
    Broken(String),
}

/// What the head of a part says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartHead {
    /// `filename`, without its URL escapes.
    pub file_name: String,
    /// Media type in lower case, without parameters.
    pub content_type: String,
}

/// Where the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a boundary: the preamble, or the data of a part.
    Data,
    /// Just after a boundary.
    Boundary,
    /// After the last boundary.
    End,
}

/// Cuts a body into parts.
#[derive(Debug)]
pub struct Multipart<S> {
    chunks: S,
    buffer: BytesMut,
    delimiter: Vec<u8>,
    place: Place,
}

/// The boundary named by a content type of `multipart/form-data` or `multipart/mixed`.
pub fn boundary(content_type: &str) -> Result<String, MultipartError> {
    let (media_type, parameters) = content_type.split_once(';').ok_or(MultipartError::NotMultipart)?;
    let media_type = media_type.trim().to_ascii_lowercase();
    if media_type != "multipart/form-data" && media_type != "multipart/mixed" {
        return Err(MultipartError::NotMultipart);
    }
    let boundary = parameter(parameters, "boundary").ok_or(MultipartError::NotMultipart)?;
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY || boundary.contains(['\r', '\n']) {
        return Err(MultipartError::NotMultipart);
    }
    Ok(boundary)
}

impl<S, E> Multipart<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    /// A reader of `chunks`.
    pub fn new(chunks: S, boundary: &str) -> Self {
        // The first boundary has no line feed before it; giving it one makes all boundaries alike.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Self { chunks, buffer, delimiter: format!("\r\n--{boundary}").into_bytes(), place: Place::Data }
    }

    /// Skips what is left of the present part; the head of the next one, or `None` after the last.
    pub async fn next_part(&mut self) -> Result<Option<PartHead>, MultipartError> {
        while self.next_data().await?.is_some() {}
        if self.place == Place::End {
            return Ok(None);
        }
        // The last boundary needs no line feed, so it cannot be read as a line.
        while self.buffer.len() < 2 {
            self.fill().await?;
        }
        if self.buffer.starts_with(b"--") {
            self.skip_epilogue().await?;
            self.place = Place::End;
            return Ok(None);
        }
        let rest = self.line().await?;
        if !rest.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(MultipartError::Malformed("text follows a boundary"));
        }
        let mut head = PartHead::default();
        let mut left = MAX_HEAD;
        loop {
            let length = self.line_length().await?;
            left = left.checked_sub(length + 2).ok_or(MultipartError::Malformed("the head of a part is too long"))?;
            if length == 0 {
                // Stays: data that is empty ends with the delimiter at once, whose line feed is the end of the head.
                break;
            }
            let line = self.line().await?;
            head.take_line(&line)?;
        }
        self.place = Place::Data;
        self.skip_line_feed().await?;
        Ok(Some(head))
    }

    /// More data of the present part; `None` at its end.
    pub async fn next_data(&mut self) -> Result<Option<Bytes>, MultipartError> {
        while self.place == Place::Data {
            let (safe, found) = scan(&self.buffer, &self.delimiter);
            if safe > 0 {
                return Ok(Some(self.buffer.split_to(safe).freeze()));
            }
            if found {
                self.buffer.advance(self.delimiter.len());
                self.place = Place::Boundary;
            } else {
                self.fill().await?;
            }
        }
        Ok(None)
    }

    /// Reads and drops what is left of the body, at most `limit` bytes.
    pub async fn drain(&mut self, limit: usize) -> usize {
        let mut drained = 0;
        while drained < limit
            && let Some(Ok(chunk)) = self.chunks.next().await
        {
            drained += chunk.len();
        }
        drained
    }

    /// One line without its end.
    async fn line(&mut self) -> Result<Bytes, MultipartError> {
        let length = self.line_length().await?;
        let line = self.buffer.split_to(length).freeze();
        self.buffer.advance(2);
        Ok(line)
    }

    /// How long the line is that comes next; `\r\n` inside of [`MAX_HEAD`] bytes, or the body is malformed. The line is
    /// then in the buffer.
    async fn line_length(&mut self) -> Result<usize, MultipartError> {
        let mut searched = 0;
        loop {
            let end = self.buffer.len().min(MAX_HEAD);
            if let Some(place) = self.buffer[searched.min(end)..end].windows(2).position(|pair| pair == b"\r\n") {
                return Ok(searched + place);
            }
            if self.buffer.len() >= MAX_HEAD {
                return Err(MultipartError::Malformed("the head of a part is too long"));
            }
            // Its first half may be the last byte that is here.
            searched = end.saturating_sub(1);
            self.fill().await?;
        }
    }

    /// Reads to the end of the body: a client that goes away before its last byte has not sent the upload.
    async fn skip_epilogue(&mut self) -> Result<(), MultipartError> {
        const TOO_MUCH: MultipartError = MultipartError::Malformed("too much follows the last boundary");
        let mut left = MAX_HEAD.checked_sub(self.buffer.len()).ok_or(TOO_MUCH)?;
        self.buffer.clear();
        while let Some(chunk) = self.chunks.next().await {
            let chunk = chunk.map_err(|error| MultipartError::Broken(error.to_string()))?;
            left = left.checked_sub(chunk.len()).ok_or(TOO_MUCH)?;
        }
        Ok(())
    }

    /// Drops the line feed at the end of the head unless it belongs to a delimiter.
    async fn skip_line_feed(&mut self) -> Result<(), MultipartError> {
        while self.buffer.len() < self.delimiter.len() && self.delimiter.starts_with(&self.buffer) {
            self.fill().await?;
        }
        if !self.buffer.starts_with(&self.delimiter) {
            self.buffer.advance(2);
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), MultipartError> {
        match self.chunks.next().await {
            Some(Ok(chunk)) => {
                self.buffer.extend_from_slice(&chunk);
                Ok(())
            }
            Some(Err(error)) => Err(MultipartError::Broken(error.to_string())),
            None => Err(MultipartError::Broken("it ended before its last boundary".to_owned())),
        }
    }
}

impl PartHead {
    fn take_line(&mut self, line: &[u8]) -> Result<(), MultipartError> {
        let line = std::str::from_utf8(line).map_err(|_| MultipartError::Malformed("a header is not UTF-8"))?;
        let (name, value) = line.split_once(':').ok_or(MultipartError::Malformed("a header has no colon"))?;
        if name.eq_ignore_ascii_case("content-type") {
            let media_type = value.split(';').next().unwrap_or_default();
            self.content_type = media_type.trim().to_ascii_lowercase();
        } else if name.eq_ignore_ascii_case("content-disposition") {
            let parameters = value.split_once(';').map_or("", |(_, rest)| rest);
            let escaped = parameter(parameters, "filename").unwrap_or_default().replace('+', " ");
            self.file_name = percent_decode(escaped.as_bytes())
                .decode_utf8()
                .map_err(|_| MultipartError::Malformed("a file name is not UTF-8"))?
                .into_owned();
        }
        Ok(())
    }
}

/// How many bytes of `buffer` are surely data, and whether the delimiter follows them.
fn scan(buffer: &[u8], delimiter: &[u8]) -> (usize, bool) {
    let mut from = 0;
    while let Some(place) = buffer[from..].iter().position(|byte| *byte == b'\r') {
        let start = from + place;
        let tail = &buffer[start..];
        if tail.starts_with(delimiter) {
            return (start, true);
        }
        if delimiter.starts_with(tail) {
            return (start, false);
        }
        from = start + 1;
    }
    (buffer.len(), false)
}

/// The value of a parameter in `name=value; name="quoted \"value\""`.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, tail) = rest.split_once('=')?;
        let (value, tail) = value(tail.trim_start());
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = tail;
    }
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => value.extend(letters.next()),
            _ => value.push(letter),
        }
    }
    (value, letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = Vec<(PartHead, Vec<u8>)>;

    /// Reads `body` in pieces of `size` bytes.
    async fn read(body: &[u8], size: usize) -> Result<Parts, MultipartError> {
        let pieces: Vec<Result<Bytes, String>> =
            body.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut reader = Multipart::new(futures::stream::iter(pieces), "BB");
        let mut parts = Vec::new();
        while let Some(head) = reader.next_part().await? {
            let mut data = Vec::new();
            while let Some(more) = reader.next_data().await? {
                assert!(!more.is_empty());
                data.extend_from_slice(&more);
            }
            parts.push((head, data));
        }
        Ok(parts)
    }

    const BODY: &[u8] = b"preamble\r\n--BB\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%2Fb+c.txt\"\r\n\
        Content-Type: application/octet-stream\r\n\r\none\r\n--B not yet\r\n\r\n--BB \r\ncontent-type: Application/X-Directory; x=y\r\n\
        Content-Disposition: form-data; name=file; filename=\"q\\\"uote\"\r\n\r\n\r\n--BB\r\n\r\nno head\r\n--BB\r\n\r\n--BB--\r\nepilogue";

    #[tokio::test]
    async fn parts_are_the_same_however_the_body_is_cut() {
        let whole = read(BODY, BODY.len()).await.unwrap();
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[0].0.file_name, "a/b c.txt");
        assert_eq!(whole[0].1, b"one\r\n--B not yet\r\n");
        assert_eq!(whole[1].0.file_name, "q\"uote");
        assert_eq!(whole[1].0.content_type, "application/x-directory");
        assert!(whole[1].1.is_empty());
        assert_eq!(whole[2], (PartHead::default(), b"no head".to_vec()));
        assert!(whole[3].1.is_empty());
        for size in 1..80 {
            assert_eq!(read(BODY, size).await.unwrap(), whole, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn every_cut_of_a_body_is_an_error_and_never_a_panic() {
        let end = BODY.len() - b"--\r\nepilogue".len();
        for length in 0..=end {
            assert!(read(&BODY[..length], 7).await.is_err(), "{length}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_last_boundary_is_read_to_its_end() {
        let pieces = |last: Result<Bytes, String>| {
            let body = Bytes::from_static(b"--BB\r\n\r\nx\r\n--BB--");
            Multipart::new(futures::stream::iter([Ok(body), last]), "BB")
        };
        let mut cut = pieces(Err("the client went away".to_owned()));
        assert!(cut.next_part().await.unwrap().is_some());
        assert!(matches!(cut.next_part().await, Err(MultipartError::Broken(_))));
        let mut endless = pieces(Ok(vec![b'x'; MAX_HEAD + 1].into()));
        assert!(endless.next_part().await.unwrap().is_some());
        assert!(matches!(endless.next_part().await, Err(MultipartError::Malformed(_))));
    }

    #[tokio::test]
    async fn hostile_bodies_are_refused() {
        let long = [b"--BB\r\nX: ".as_slice(), &vec![b'x'; MAX_HEAD]].concat();
        let many = [b"--BB\r\n".as_slice(), &b"X: 1234567890\r\n".repeat(MAX_HEAD / 10)].concat();
        for body in [long.as_slice(), &many, b"--BB\r\nno colon\r\n\r\n", b"--BBx\r\n\r\n", b"--BB\r\nX: \xff\r\n\r\n"]
        {
            assert!(matches!(read(body, 100).await, Err(MultipartError::Malformed(_))));
        }
        let named = b"--BB\r\nContent-Disposition: form-data; filename=\"%ff\"\r\n\r\n--BB--";
        assert!(matches!(read(named, 100).await, Err(MultipartError::Malformed(_))));
    }

    #[test]
    fn only_multipart_content_types_have_a_boundary() {
        assert_eq!(boundary("multipart/form-data; boundary=abc").unwrap(), "abc");
        assert_eq!(boundary("Multipart/Mixed; charset=x; boundary=\"a b\"").unwrap(), "a b");
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for bad in
            ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "text/x; boundary=a", &long]
        {
            assert_eq!(boundary(bad), Err(MultipartError::NotMultipart), "{bad}");
        }
    }
}
