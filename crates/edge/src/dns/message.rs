//! Questions and answers as DNS writes them.

use super::Transport;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use longshore_engine::dns::{self, Data, Kind, Known, Question};

/// The largest response by UDP to who says that it takes more than [`SMALL`], so that it fits into one packet everywhere.
const LARGE: u16 = 1232;
/// To who says nothing.
const SMALL: u16 = 512;
/// The length of a message's header.
const HEADER: usize = 12;

/// A request with one question.
pub struct Asked {
    request: Message,
    query: Query,
}

impl Asked {
    /// The response to what is no such request; no response at all to what is no request.
    pub fn parse(bytes: &[u8]) -> Result<Self, Option<Vec<u8>>> {
        let request = match Message::from_vec(bytes) {
            Ok(request) if request.metadata.message_type == MessageType::Query => request,
            Ok(_) => return Err(None),
            Err(_) => return Err(malformed(bytes)),
        };
        let error = |code| {
            let metadata = request.metadata;
            Err(Message::error_msg(metadata.id, metadata.op_code, code).to_vec().ok())
        };
        if request.metadata.op_code != OpCode::Query {
            return error(ResponseCode::NotImp);
        }
        match request.queries.as_slice() {
            [query] => Ok(Self { query: query.clone(), request }),
            _ => error(ResponseCode::FormErr),
        }
    }

    /// `None` where the name cannot be one of ours.
    pub fn question(&self) -> Option<Question> {
        if !matches!(self.query.query_class, DNSClass::IN | DNSClass::ANY) {
            return None;
        }
        let labels = self.query.name.iter().map(|label| {
            let plain = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
            std::str::from_utf8(label).ok().filter(|_| plain)
        });
        let name = labels.collect::<Option<Vec<_>>>()?.join(".");
        let kind = match self.query.query_type {
            RecordType::A => Kind::A,
            RecordType::AAAA => Kind::Aaaa,
            RecordType::CNAME => Kind::Cname,
            RecordType::NS => Kind::Ns,
            RecordType::PTR => Kind::Ptr,
            RecordType::SOA => Kind::Soa,
            RecordType::SRV => Kind::Srv,
            RecordType::ANY => Kind::Any,
            _ => Kind::Other,
        };
        (!name.is_empty()).then_some(Question { name, kind })
    }

    /// The same request for another name.
    pub fn for_name(&self, name: &str) -> Option<Vec<u8>> {
        let mut request = self.request.clone();
        let mut query = self.query.clone();
        query.set_name(name_of(name)?);
        request.queries = vec![query];
        request.to_vec().ok()
    }

    pub fn refuse(&self, code: ResponseCode, transport: Transport) -> Option<Vec<u8>> {
        let mut response = self.response();
        response.metadata.response_code = code;
        self.fit(response, transport)
    }

    /// What is known here, and then what others said of the name that it leads to.
    pub fn respond(&self, known: &Known, further: Option<&Message>, transport: Transport) -> Option<Vec<u8>> {
        let mut response = self.response();
        let written = |records: &[dns::Record]| records.iter().filter_map(record).collect::<Vec<_>>();
        response.add_answers(written(&known.answers));
        response.add_authorities(written(&known.authority));
        response.add_additionals(written(&known.additional));
        response.metadata.response_code = match (further, known.exists) {
            (Some(further), _) => {
                response.add_answers(further.answers.iter().cloned());
                response.add_authorities(further.authorities.iter().cloned());
                further.metadata.response_code
            }
            (None, true) => ResponseCode::NoError,
            (None, false) => ResponseCode::NXDomain,
        };
        self.fit(response, transport)
    }

    fn response(&self) -> Message {
        let mut response = Message::response(self.request.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = self.request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.checking_disabled = self.request.metadata.checking_disabled;
        response.add_query(self.query.clone());
        if self.request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LARGE).set_version(0);
            response.set_edns(edns);
        }
        response
    }

    /// As much as the client takes: without what it did not ask for, or with nothing but that there is more.
    fn fit(&self, mut response: Message, transport: Transport) -> Option<Vec<u8>> {
        let most = match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => {
                let given = self.request.edns.as_ref().map_or(SMALL, Edns::max_payload);
                usize::from(given.clamp(SMALL, LARGE))
            }
        };
        let whole = response.to_vec().ok()?;
        if whole.len() <= most {
            return Some(whole);
        }
        response.additionals.clear();
        let brief = response.to_vec().ok()?;
        if brief.len() <= most {
            return Some(brief);
        }
        response.truncate().to_vec().ok()
    }
}

/// A response to what cannot be read, where at least its header can.
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = bytes.get(..HEADER)?;
    let (&[high, low], is_response) = (header.first_chunk::<2>()?, header.get(2)? & 0x80 != 0);
    let id = u16::from_be_bytes([high, low]);
    let response = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    response.to_vec().ok().filter(|_| !is_response)
}

/// `None` for a name that DNS does not take, such as that of an instance whose id has 64 letters.
fn record(given: &dns::Record) -> Option<Record> {
    let data = match &given.data {
        Data::A(address) => RData::A(A(*address)),
        Data::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Data::Cname(name) => RData::CNAME(CNAME(name_of(name)?)),
        Data::Ns(name) => RData::NS(NS(name_of(name)?)),
        Data::Ptr(name) => RData::PTR(PTR(name_of(name)?)),
        Data::Soa { primary, mailbox, minimum } => {
            let (primary, mailbox) = (name_of(primary)?, name_of(mailbox)?);
            RData::SOA(SOA::new(primary, mailbox, 1, 7200, 900, 1_209_600, *minimum))
        }
        Data::Srv { port, target } => RData::SRV(SRV::new(1, 1, *port, name_of(target)?)),
    };
    Some(Record::from_rdata(name_of(&given.name)?, given.ttl, data))
}

fn name_of(text: &str) -> Option<Name> {
    let labels = text.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}
