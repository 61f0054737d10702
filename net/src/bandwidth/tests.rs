//! Names are found in negotiations cut anywhere, bytes are all counted, rates fade, and names are bounded.

use futures::io::Cursor;
use futures::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn message(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len() + 1).unwrap()];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'\n');
    bytes
}

fn negotiation(refused: usize, name: &str) -> Vec<u8> {
    let mut bytes = message("/multistream/1.0.0");
    for _ in 0..refused {
        bytes.extend(message("na"));
    }
    bytes.extend(message(name));
    bytes
}

#[test]
fn the_name_that_was_taken_counts() {
    let said = negotiation(2, "/meshsub/1.1.0");
    assert_eq!(agreed(&said), Agreed::On("/meshsub/1.1.0".to_owned()));
    for cut in 0..said.len() {
        assert_eq!(agreed(&said[..cut]), Agreed::NotYet, "{cut}");
    }
    for wrong in [&b"\x05hello"[..], b"\xff\xff\xff", b"\x03ab\n", b"\x03\xff\xff\n"] {
        assert_eq!(agreed(wrong), Agreed::Never, "{wrong:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_bytes_of_a_stream_count_for_its_protocol_and_the_rate_fades() {
    let meters = Arc::new(Meters::default());
    let mut said = negotiation(1, "/x/1");
    let before = said.len();
    said.extend([7; 1_000]);
    let mut stream = Metered::new(Cursor::new(said.clone()), Opened::Here, Arc::clone(&meters));
    // The tiniest pieces.
    let mut byte = [0];
    for _ in 0..before - 1 {
        stream.read_exact(&mut byte).await.unwrap();
    }
    assert!(meters.read().is_empty(), "nobody knows the name yet");
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    let total = u64::try_from(said.len()).unwrap();
    let counted = meters.read()["/x/1"];
    assert_eq!((counted.total_in, counted.total_out), (total, 0));
    assert!(counted.rate_in > 0.0 && counted.rate_out == 0.0);
    tokio::time::advance(MEMORY * 20).await;
    let later = meters.read()["/x/1"];
    assert!(later.total_in == total && later.rate_in < counted.rate_in / 1e6, "{later:?}");
}

#[tokio::test]
async fn on_a_stream_from_outside_this_side_says_the_name() {
    let meters = Arc::new(Meters::default());
    let mut stream = Metered::new(Cursor::new(Vec::new()), Opened::There, Arc::clone(&meters));
    let said = negotiation(0, "/y/2");
    stream.write_all(&said).await.unwrap();
    stream.write_all(&[1; 5]).await.unwrap();
    assert_eq!(meters.read()["/y/2"].total_out, u64::try_from(said.len() + 5).unwrap());
    let mut silent = Metered::new(Cursor::new(vec![1, 2, 3]), Opened::There, Arc::clone(&meters));
    silent.read_to_end(&mut Vec::new()).await.unwrap();
    drop(silent);
    assert_eq!(meters.read()[OTHER].total_in, 3, "what was never negotiated is not lost");
}

#[tokio::test(start_paused = true)]
async fn a_steady_flow_has_its_rate() {
    let mut flow = Flow::new(Instant::now());
    for _ in 0..100 {
        tokio::time::advance(Duration::from_secs(1)).await;
        flow.add(500, Instant::now());
    }
    let rate = flow.rate(Instant::now());
    assert!((450.0..600.0).contains(&rate), "{rate}");
}

#[test]
fn names_are_bounded() {
    let meters = Meters::default();
    for number in 0..1_000 {
        meters.of(&format!("/{number}"));
    }
    let read = meters.read();
    assert!(read.len() <= MAX_PROTOCOLS && read.contains_key(OTHER), "{}", read.len());
}
