//! The codec against its own library, and against what is not DNS.

use super::*;

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn question(name: &str, kind: RecordType) -> Question {
    parse(&query(name, kind).to_vec().unwrap()).unwrap()
}

fn read(bytes: &[u8]) -> Message {
    Message::from_vec(bytes).unwrap()
}

#[test]
fn a_name_is_lower_case_and_has_no_trailing_dot() {
    let question = question("GitHub.COM.", RecordType::A);
    assert_eq!((question.name.as_str(), question.kind), ("github.com", Kind::A));
}

#[test]
fn only_the_asked_family_is_answered() {
    let both = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    for (kind, count) in
        [(RecordType::A, 1), (RecordType::AAAA, 1), (RecordType::TXT, 0), (RecordType::HTTPS, 0)]
    {
        let reply = read(&question("a.example", kind).addresses(&both, 60, Transport::Udp));
        assert_eq!(reply.answers.len(), count, "{kind}");
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!((reply.metadata.id, reply.queries[0].query_type()), (7, kind));
    }
}

#[test]
fn what_is_not_one_question_is_refused() {
    let mut two = query("a.example", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("b.example").unwrap(), RecordType::A));
    let none = Message::new(7, MessageType::Query, OpCode::Query);
    let mut response = query("a.example", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let mut update = query("a.example", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    let mut forged = query("a.example", RecordType::A);
    let name = Name::from_ascii("a.example").unwrap();
    forged.add_answer(Record::from_rdata(name, 60, RData::A("192.0.2.1".parse().unwrap())));
    for (message, want) in [
        (two, Malformed::NotOneQuestion),
        (none, Malformed::NotOneQuestion),
        (response, Malformed::NotAQuery),
        (forged, Malformed::ExtraRecords),
    ] {
        assert_eq!(parse(&message.to_vec().unwrap()).unwrap_err(), want);
    }
    assert!(parse(&update.to_vec().unwrap()).is_err());
}

#[test]
fn labels_that_are_no_host_name_are_refused() {
    for raw in [&b"a.b"[..], b"a\0b", b"a b", b"\xc3\xa9"] {
        let name = Name::from_labels([raw, b"example"]).unwrap();
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name, RecordType::A));
        assert_eq!(parse(&message.to_vec().unwrap()).unwrap_err(), Malformed::BadName, "{raw:?}");
    }
    assert_eq!(parse(&query(".", RecordType::NS).to_vec().unwrap()).unwrap_err(), Malformed::BadName);
}

#[test]
fn every_cut_and_every_flipped_byte_is_survived() {
    let whole = query("some.name.example", RecordType::AAAA).to_vec().unwrap();
    for cut in 0..whole.len() {
        assert!(parse(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..whole.len() {
        for flip in [0x01, 0x40, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            // Either outcome is fine; what counts is that there is one.
            drop(parse(&bytes));
        }
    }
}

#[test]
fn the_limit_holds_on_both_sides() {
    assert_eq!(parse(&vec![0; MAX_QUERY + 1]).unwrap_err(), Malformed::TooLong);
    assert_ne!(parse(&vec![0; MAX_QUERY]).unwrap_err(), Malformed::TooLong);
    let many: Vec<IpAddr> =
        (0..=MAX_ADDRESSES).map(|n| IpAddr::from([192, 0, 2, u8::try_from(n).unwrap()])).collect();
    let question = question("a.example", RecordType::A);
    assert_eq!(read(&question.addresses(&many, 1, Transport::Tcp)).answers.len(), MAX_ADDRESSES);
}

#[test]
fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    let many: Vec<IpAddr> =
        (0..MAX_ADDRESSES).map(|n| IpAddr::from([192, 0, 2, u8::try_from(n).unwrap()])).collect();
    let question = question("a.example", RecordType::A);
    let short = question.addresses(&many, 1, Transport::Udp);
    assert!(short.len() <= PLAIN_UDP && read(&short).metadata.truncation);
    assert!(!read(&question.addresses(&many, 1, Transport::Tcp)).metadata.truncation);
}

#[test]
fn a_blocked_name_says_why_to_who_understands() {
    let mut message = query("a.example", RecordType::A);
    message.set_edns(Edns::new());
    let question = parse(&message.to_vec().unwrap()).unwrap();
    let bytes = question.blocked("policy-default-deny", Transport::Udp);
    assert_eq!(read(&bytes).metadata.response_code, ResponseCode::NXDomain);
    assert!(bytes.windows(19).any(|window| window == b"policy-default-deny"));
}
