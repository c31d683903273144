//! What a client says. Texts and names are bytes in the client's encoding, and slices of the message.

use bytes::Bytes;

use super::fields::{Fields, Format, Malformed, Secret};
use super::frame::{Frame, Large};

/// A text, where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// Exactly these bytes, without the zero byte that ends them.
    Here(Bytes),
    /// In a message too large to be kept, whose body has so many bytes.
    Spooled(u32),
}

/// The values of a Bind or of a function call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// These, in order.
    Here {
        /// Of no value, of all, or of each.
        formats: Vec<Format>,
        /// None is null.
        values: Vec<Option<Bytes>>,
    },
    /// In a message too large to be kept, whose body has so many bytes.
    Spooled(u32),
}

/// Statement or portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// A message of an established session, except its copied data, which comes in runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text of one or several statements.
    Query(Text),
    /// A statement is prepared.
    Parse {
        /// Its name; empty for the unnamed one.
        name: Bytes,
        /// Its text.
        text: Text,
        /// Type OIDs of its parameters as far as the client gives them; none are known of a large message.
        types: Vec<u32>,
    },
    /// A portal is made of a statement and values.
    Bind {
        /// The portal's name.
        portal: Bytes,
        /// The statement's name.
        statement: Bytes,
        /// Its values.
        values: Values,
        /// In which formats results are wanted.
        results: Vec<Format>,
    },
    /// A description is wanted.
    Describe(Named, Bytes),
    /// A portal is run.
    Execute {
        /// Its name.
        portal: Bytes,
        /// As many rows at most; 0 is no limit.
        max_rows: u32,
    },
    /// A statement or a portal is given up.
    Close(Named, Bytes),
    /// Answers so far are wanted.
    Flush,
    /// The end of a group.
    Sync,
    /// A function is called by OID.
    FunctionCall {
        /// Which.
        function: u32,
        /// With what.
        arguments: Values,
    },
    /// The end of copied data.
    CopyDone,
    /// The copying has failed at the client, which says why.
    CopyFail(Bytes),
    /// The end.
    Terminate,
}

/// Decodes a whole message of an established session.
///
/// # Errors
/// When it does not have the form of its type, or has no place in an established session.
pub fn decode(frame: &Frame) -> Result<Message, Malformed> {
    let mut fields = Fields::new(frame);
    let message = body(&mut fields)?;
    fields.end()?;
    Ok(message)
}

fn body(fields: &mut Fields) -> Result<Message, Malformed> {
    Ok(match fields.kind {
        b'Q' => Message::Query(Text::Here(fields.string()?)),
        b'P' => Message::Parse {
            name: fields.string()?,
            text: Text::Here(fields.string()?),
            types: fields.numbers()?,
        },
        b'B' => bind(fields)?,
        b'D' => Message::Describe(named(fields)?, fields.string()?),
        b'E' => Message::Execute {
            portal: fields.string()?,
            max_rows: max_rows(fields)?,
        },
        b'C' => Message::Close(named(fields)?, fields.string()?),
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'F' => function_call(fields)?,
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(fields.string()?),
        b'X' => Message::Terminate,
        b'p' => return fields.wrong("nobody asked for a password"),
        _ => return fields.wrong("it has no place here"),
    })
}

/// PostgreSQL takes a negative number for none.
fn max_rows(fields: &mut Fields) -> Result<u32, Malformed> {
    let rows = fields.u32()?;
    Ok(if rows > i32::MAX as u32 { 0 } else { rows })
}

fn named(fields: &mut Fields) -> Result<Named, Malformed> {
    match fields.u8()? {
        b'S' => Ok(Named::Statement),
        b'P' => Ok(Named::Portal),
        _ => fields.wrong("neither a statement nor a portal"),
    }
}

fn bind(fields: &mut Fields) -> Result<Message, Malformed> {
    Ok(Message::Bind {
        portal: fields.string()?,
        statement: fields.string()?,
        values: values(fields)?,
        results: fields.formats()?,
    })
}

fn values(fields: &mut Fields) -> Result<Values, Malformed> {
    let formats = fields.formats()?;
    let values = fields.values()?;
    if formats.len() > 1 && formats.len() != values.len() {
        return fields.wrong("it has neither one format nor as many as values");
    }
    Ok(Values::Here { formats, values })
}

fn function_call(fields: &mut Fields) -> Result<Message, Malformed> {
    let function = fields.u32()?;
    let arguments = values(fields)?;
    fields.format()?;
    Ok(Message::FunctionCall {
        function,
        arguments,
    })
}

/// Decodes the beginning of a large message: its names, and how much there is that is spooled. What
/// is spooled is not looked into: its evidence is the exact bytes.
///
/// # Errors
/// When it does not have the form of its type, or names are so long that they are not in the beginning.
pub fn decode_large(large: &Large) -> Result<Message, Malformed> {
    let mut fields = Fields::of(large.kind, &large.bytes);
    Ok(match large.kind {
        b'Q' => Message::Query(Text::Spooled(large.length)),
        b'P' => Message::Parse {
            name: fields.string()?,
            text: Text::Spooled(large.length),
            types: Vec::new(),
        },
        b'B' => Message::Bind {
            portal: fields.string()?,
            statement: fields.string()?,
            values: Values::Spooled(large.length),
            results: Vec::new(),
        },
        b'F' => Message::FunctionCall {
            function: fields.u32()?,
            arguments: Values::Spooled(large.length),
        },
        _ => return fields.wrong("it is too large"),
    })
}

/// Decodes the answer to a request for a password, which is a password or a token.
///
/// # Errors
/// When it is no such answer, or empty.
pub fn password(frame: &Frame) -> Result<Secret, Malformed> {
    let mut fields = answer(frame)?;
    let password = fields.only_string()?;
    if password.is_empty() {
        return fields.wrong("an empty password");
    }
    Ok(Secret::new(&password))
}

/// Decodes the first answer to an offer of SASL mechanisms: the mechanism, and what comes with it.
///
/// # Errors
/// When it is no such answer.
pub fn sasl_initial(frame: &Frame) -> Result<(Bytes, Option<Secret>), Malformed> {
    let mut fields = answer(frame)?;
    let mechanism = fields.string()?;
    let data = fields.value()?;
    fields.end()?;
    Ok((mechanism, data.as_deref().map(Secret::new)))
}

/// Decodes a later answer of SASL.
///
/// # Errors
/// When it is no such answer.
pub fn sasl_response(frame: &Frame) -> Result<Secret, Malformed> {
    Ok(Secret::new(&answer(frame)?.rest()))
}

fn answer(frame: &Frame) -> Result<Fields, Malformed> {
    let fields = Fields::new(frame);
    match frame.kind {
        b'p' => Ok(fields),
        _ => fields.wrong("a password was asked for"),
    }
}

#[cfg(test)]
mod tests;
