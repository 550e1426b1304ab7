//! A question in octets, and whether a reply answers it. Pure.
//!
//! In: a question, what its EDNS says. Out: the query's octets; of what comes back, whether it is ours to read: same id, a reply, the same
//! question (RFC 5452 §9.1); the address is the socket's to check. What is not ours is no reason to stop waiting (TuDoor, 2024).

use hickory_proto::op::{Message, Query, ResponseCode};

use super::case::{Spelling, mix};
use super::trail::{self, Trail};
use crate::cache::Bits;
use crate::names;

/// What we take by UDP at most: the size that DNS flag day 2020 recommends; what is larger may have been put together from fragments.
pub(crate) const UDP_BYTES_MAX: u16 = 1232;
const HEADER_BYTES: usize = 12;
/// Type and class.
const TAIL_BYTES: usize = 4;
const OPT: u16 = 41;

/// What the OPT record of a query says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// DO, CD, AD.
    pub(super) bits: Bits,
    /// Where the question comes from.
    pub(super) trail: Trail,
}

/// A query.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    octets: Vec<u8>,
    question_end: usize,
    spelling: Spelling,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Reply {
    /// The reply; whether it repeats the letters of the question, where they were mixed.
    Ours(Box<Message>, Option<bool>),
    /// To our question, in other letters, by one who always repeats them: it may be forged.
    Respelled,
    /// To our question, but nothing that can be read.
    Broken,
    /// Somebody else's, or nobody's.
    Foreign,
}

/// What came back, by its header and question alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Screened {
    /// To our question; whether it repeats the letters, where they were mixed.
    Ours(Option<bool>),
    /// See [`Reply::Respelled`].
    Respelled,
    /// See [`Reply::Foreign`].
    Foreign,
}

impl Ask {
    /// `options` is `None` for a server that knows no EDNS.
    pub(super) fn new(question: &Query, id: u16, options: Option<Options>) -> Self {
        let (kind, class) = (u16::from(question.query_type), u16::from(question.query_class));
        Self::of([&names::octets(&question.name), &[]], (kind, class), id, options)
    }

    /// The same for a name in two parts, as octets of the wire.
    pub(super) fn of(name: [&[u8]; 2], (kind, class): (u16, u16), id: u16, options: Option<Options>) -> Self {
        let length = name[0].len() + name[1].len();
        let mut octets = Vec::with_capacity(HEADER_BYTES + length + TAIL_BYTES + 15 + trail::OCTETS);
        octets.extend(id.to_be_bytes());
        // RFC 4035 §3.2.2: CD is passed on. RFC 6840 §5.7: AD in a query asks to be told whether the answer was validated.
        let bits = options.map(|o| o.bits).unwrap_or_default();
        let low = u8::from(bits.validated) << 5 | u8::from(bits.unchecked) << 4;
        // RD.
        octets.extend([1, low, 0, 1, 0, 0, 0, 0, 0, u8::from(options.is_some())]);
        octets.extend_from_slice(name[0]);
        octets.extend_from_slice(name[1]);
        octets.extend(kind.to_be_bytes());
        octets.extend(class.to_be_bytes());
        let question_end = octets.len();
        if let Some(options) = options {
            opt(options, &mut octets);
        }
        Self { octets, question_end, spelling: Spelling::Plain }
    }

    /// The same with the letters of its name as `spelling` says.
    pub(super) fn spelled(mut self, spelling: Spelling, dice: u64) -> Self {
        if spelling != Spelling::Plain {
            mix(&mut self.octets[HEADER_BYTES..self.question_end - TAIL_BYTES], dice);
        }
        Self { spelling, ..self }
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(super) fn id(&self) -> u16 {
        self.octets.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))
    }

    /// What `reply` is to this query.
    pub(super) fn judge(&self, reply: &mut [u8]) -> Reply {
        match self.screen(reply) {
            Screened::Ours(exact) => read(reply, exact),
            Screened::Respelled => Reply::Respelled,
            Screened::Foreign => Reply::Foreign,
        }
    }

    /// What `reply` is to this query, by its header and question. The question in it is put into lower case, and with it what points there.
    pub(super) fn screen(&self, reply: &mut [u8]) -> Screened {
        if reply.first_chunk::<2>() != self.octets.first_chunk() {
            return Screened::Foreign;
        }
        let asked = HEADER_BYTES..self.question_end;
        let mixed = self.spelling != Spelling::Plain && reply.get(4..6) == Some(&[0, 1]);
        let exact = mixed.then(|| reply.get(asked.clone()) == Some(&self.octets[asked]));
        match self.is_ours(reply) {
            true if exact == Some(false) && self.spelling == Spelling::Strict => Screened::Respelled,
            true => Screened::Ours(exact),
            false => Screened::Foreign,
        }
    }

    /// What `reply` is, where a connection gave the query an id of its own; nobody can guess there.
    pub(super) fn judge_but_id(&self, reply: &mut [u8]) -> Reply {
        if self.is_ours(reply) { read(reply, None) } else { Reply::Foreign }
    }

    /// Whether `reply` is one to our question, whatever its id; its question is in lower case then.
    fn is_ours(&self, reply: &mut [u8]) -> bool {
        let Some(&head) = reply.first_chunk::<HEADER_BYTES>() else { return false };
        let is_reply = head[2] & 0x80 != 0 && head[2] >> 3 & 0x0f == 0;
        if !is_reply || !self.is_asked_in(reply, &head) {
            return false;
        }
        if head[5] == 1 && self.spelling != Spelling::Plain {
            reply[HEADER_BYTES..self.question_end - TAIL_BYTES].make_ascii_lowercase();
        }
        true
    }

    fn is_asked_in(&self, reply: &[u8], head: &[u8; HEADER_BYTES]) -> bool {
        match [head[4], head[5]] {
            // A server that could not read the question may leave it out.
            [0, 0] => head[3] & 0x0f != ResponseCode::NoError.low(),
            [0, 1] => {
                let asked = &self.octets[HEADER_BYTES..self.question_end];
                let said = reply.get(HEADER_BYTES..self.question_end);
                // Labels' lengths are no letters.
                said.is_some_and(|said| said.eq_ignore_ascii_case(asked))
            }
            _ => false,
        }
    }
}

fn read(reply: &[u8], exact: Option<bool>) -> Reply {
    Message::from_vec(reply).map_or(Reply::Broken, |message| Reply::Ours(Box::new(message), exact))
}

/// RFC 6891 §6.1.2.
fn opt(options: Options, octets: &mut Vec<u8>) {
    octets.push(0);
    octets.extend(OPT.to_be_bytes());
    octets.extend(UDP_BYTES_MAX.to_be_bytes());
    octets.extend([0, 0, u8::from(options.bits.dnssec) << 7, 0]);
    let option = options.trail.octets();
    let len = u16::try_from(option.len()).unwrap_or(0);
    octets.extend((len + 4).to_be_bytes());
    octets.extend(trail::OPTION.to_be_bytes());
    octets.extend(len.to_be_bytes());
    octets.extend(option);
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::RecordType;

    use super::*;
    use crate::names::absolute;

    fn ask() -> Ask {
        let question = Query::query(absolute("web.shop.svc.cluster.local").unwrap(), RecordType::A);
        Ask::new(
            &question,
            7,
            Some(Options { bits: Bits { dnssec: true, ..Bits::default() }, trail: Trail::onward(None, 1, 2) }),
        )
    }

    #[test]
    fn a_query_reads_as_it_was_meant() {
        let message = Message::from_vec(ask().octets()).unwrap();
        assert_eq!((message.metadata.id, message.metadata.recursion_desired), (7, true));
        assert_eq!(message.queries[0].name.to_ascii(), "web.shop.svc.cluster.local.");
        let edns = message.edns.as_ref().unwrap();
        assert!(edns.flags().dnssec_ok && edns.max_payload() == UDP_BYTES_MAX);
        assert_eq!(Trail::of(&message), Some(Trail::onward(None, 1, 2)));
    }

    /// TuDoor, and RFC 5452 §9.1: what does not answer the question is as if it had never come.
    #[test]
    fn tudoor_what_does_not_answer_the_question_is_nobodys() {
        let query = Message::from_vec(ask().octets()).unwrap();
        let reply = |change: &dyn Fn(&mut Message)| {
            let mut reply = Message::response(7, OpCode::Query);
            reply.queries = query.queries.clone();
            change(&mut reply);
            reply.to_vec().unwrap()
        };
        let whole = reply(&|_| ());
        let mut two = whole.clone();
        two[5] = 2;
        let mut rest = whole.clone();
        // An answer is announced and does not come.
        rest[7] = 1;
        let refused = ResponseCode::Refused;
        for (what, octets, want) in [
            ("the reply", whole.clone(), "ours"),
            ("in another case", whole.to_ascii_uppercase(), "ours"),
            ("another id", reply(&|r| r.metadata.id = 8), "foreign"),
            ("a query", query.to_vec().unwrap(), "foreign"),
            ("another operation", reply(&|r| r.metadata.op_code = OpCode::Update), "foreign"),
            ("another name", reply(&|r| r.queries[0].name = absolute("a.b").unwrap()), "foreign"),
            ("another type", reply(&|r| r.queries[0].query_type = RecordType::AAAA), "foreign"),
            ("two questions", two, "foreign"),
            ("no question", reply(&|r| r.queries.clear()), "foreign"),
            (
                "no question, and a failure",
                reply(&|r| {
                    r.queries.clear();
                    r.metadata.response_code = refused;
                }),
                "ours",
            ),
            ("half a header", whole[..11].to_vec(), "foreign"),
            ("half a question", whole[..20].to_vec(), "foreign"),
            ("nothing", vec![], "foreign"),
            ("less than it says", rest, "broken"),
        ] {
            let got = match ask().judge(&mut octets.clone()) {
                Reply::Ours(..) => "ours",
                Reply::Respelled => "respelled",
                Reply::Broken => "broken",
                Reply::Foreign => "foreign",
            };
            assert_eq!(got, want, "{what}");
        }
    }

    #[test]
    fn letters_that_were_mixed_come_back_or_the_reply_is_doubted_and_is_in_lower_case_afterwards() {
        for (spelling, change, want) in [
            (Spelling::Plain, "none", "ours None"),
            (Spelling::Mixed, "none", "ours Some(true)"),
            (Spelling::Mixed, "lower", "ours Some(false)"),
            (Spelling::Strict, "none", "ours Some(true)"),
            (Spelling::Strict, "lower", "respelled"),
            (Spelling::Strict, "upper", "respelled"),
            (Spelling::Strict, "id", "foreign"),
        ] {
            let ask = ask().spelled(spelling, 0x5555_5555_5555_5555);
            let query = Message::from_vec(ask.octets()).unwrap();
            let mut reply = Message::response(7, OpCode::Query);
            reply.queries = query.queries.clone();
            let mut octets = reply.to_vec().unwrap();
            let name = HEADER_BYTES..ask.question_end - TAIL_BYTES;
            assert_eq!(octets[name.clone()].iter().any(u8::is_ascii_uppercase), spelling != Spelling::Plain);
            match change {
                "lower" => octets[name].make_ascii_lowercase(),
                "upper" => octets[name].make_ascii_uppercase(),
                "id" => octets[0] ^= 1,
                _ => {}
            }
            let got = match ask.judge(&mut octets) {
                Reply::Ours(message, exact) => {
                    assert_eq!(message.queries[0].name.to_ascii(), "web.shop.svc.cluster.local.");
                    format!("ours {exact:?}")
                }
                Reply::Respelled => "respelled".to_owned(),
                Reply::Broken => "broken".to_owned(),
                Reply::Foreign => "foreign".to_owned(),
            };
            assert_eq!(got, want, "{spelling:?} {change}");
        }
    }
}
